package monitoring

import (
	"regexp"
	"slices"
	"strings"
)

// Selector is a metric that an expression names, with the labels that it matches.
type Selector struct {
	Metric string
	Labels []string
}

var (
	// token is what an expression is made of, as far as names matter. Durations are
	// numbers with letters behind.
	token = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|#[^\n]*|\[[^\]]*\]|[0-9.][0-9.a-zA-Z]*|[a-zA-Z_:][a-zA-Z0-9_:]*|[(){}]|=~|!~|!=|.`)
	name  = regexp.MustCompile(`^[a-zA-Z_:]`)
	// words stand between expressions.
	words = []string{"and", "or", "unless", "bool", "offset", "inf", "nan"}
	// lists have labels behind them, in parentheses.
	lists = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
)

// Selectors returns the metrics that a PromQL expression names. It takes what promtool
// has found right.
func Selectors(expr string) []Selector {
	var tokens []string
	for _, t := range token.FindAllString(expr, -1) {
		if strings.TrimSpace(t) != "" && !strings.HasPrefix(t, "#") {
			tokens = append(tokens, t)
		}
	}
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	var found []Selector
	for i := 0; i < len(tokens); i++ {
		switch t := strings.ToLower(tokens[i]); {
		case !name.MatchString(t) || slices.Contains(words, t):
		case slices.Contains(lists, t):
			if at(i+1) == "(" {
				i += 1 + slices.Index(tokens[i+1:], ")")
			}
		case at(i+1) == "(", slices.Contains(lists, strings.ToLower(at(i+1))): // a function, or an aggregation
		case at(i+1) == "{":
			end := i + 1 + slices.Index(tokens[i+1:], "}")
			s := Selector{Metric: tokens[i]}
			for _, label := range tokens[i+2 : end] {
				if name.MatchString(label) {
					s.Labels = append(s.Labels, label)
				}
			}
			found, i = append(found, s), end
		default:
			found = append(found, Selector{Metric: tokens[i]})
		}
	}
	return found
}
