package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// get asks for a URL and returns the body of an answer of 200.
func get(ctx context.Context, address string, query url.Values) (io.ReadCloser, error) {
	if query != nil {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // as far as it can be had
		_ = resp.Body.Close()                                  // read
		return nil, fmt.Errorf("%s: %s: %s", req.URL.Path, resp.Status, strings.TrimSpace(string(text)))
	}
	return resp.Body, nil
}

// GetJSON asks for a URL and decodes the answer.
func GetJSON(ctx context.Context, address string, query url.Values, to any) error {
	body, err := get(ctx, address, query)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(to)
}

// Prometheus asks a Prometheus, Alertmanager an Alertmanager, Loki a Loki, at its
// address (http://host:port).
type (
	Prometheus   string
	Alertmanager string
	Loki         string
)

// Sample is one sample of an instant query's answer.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Query answers a PromQL expression as of now. A scalar is a sample without labels.
func (p Prometheus) Query(ctx context.Context, expression string) ([]Sample, error) {
	var answer struct {
		Data struct {
			Type   string          `json:"resultType"`
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}
	err := GetJSON(ctx, string(p)+"/api/v1/query", url.Values{"query": {expression}}, &answer)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus for %s: %w", expression, err)
	}
	var result []struct {
		Metric map[string]string `json:"metric"`
		Value  [2]any            `json:"value"` // seconds, and the value as text
	}
	switch answer.Data.Type {
	case "vector":
		err = json.Unmarshal(answer.Data.Result, &result)
	case "scalar":
		result = append(result, struct {
			Metric map[string]string `json:"metric"`
			Value  [2]any            `json:"value"`
		}{})
		err = json.Unmarshal(answer.Data.Result, &result[0].Value)
	default:
		err = fmt.Errorf("its answer is a %s, want a vector or a scalar", answer.Data.Type)
	}
	samples := make([]Sample, 0, len(result))
	for _, r := range result {
		text, _ := r.Value[1].(string)
		value, bad := strconv.ParseFloat(text, 64)
		if err == nil {
			err = bad
		}
		samples = append(samples, Sample{Labels: r.Metric, Value: value})
	}
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus for %s: %w", expression, err)
	}
	return samples, nil
}

// ScrapeTarget is how a target of Prometheus fares.
type ScrapeTarget struct {
	Labels    map[string]string `json:"labels"`
	Health    string            `json:"health"` // up, down, unknown
	LastError string            `json:"lastError"`
}

// Targets returns what Prometheus scrapes.
func (p Prometheus) Targets(ctx context.Context) ([]ScrapeTarget, error) {
	var answer struct {
		Data struct {
			Active []ScrapeTarget `json:"activeTargets"`
		} `json:"data"`
	}
	if err := GetJSON(ctx, string(p)+"/api/v1/targets", url.Values{"state": {"active"}}, &answer); err != nil {
		return nil, fmt.Errorf("ask Prometheus for its targets: %w", err)
	}
	return answer.Data.Active, nil
}

// Rule is a rule of Prometheus's and how it fares.
type Rule struct {
	Name      string `json:"name"`
	Type      string `json:"type"`   // alerting, recording
	Health    string `json:"health"` // ok, err, unknown: not evaluated yet
	LastError string `json:"lastError"`
	State     string `json:"state"` // of alerting ones: inactive, pending, firing
}

// Rules returns all rules.
func (p Prometheus) Rules(ctx context.Context) (rules []Rule, err error) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []Rule `json:"rules"`
			} `json:"groups"`
		} `json:"data"`
	}
	if err := GetJSON(ctx, string(p)+"/api/v1/rules", nil, &answer); err != nil {
		return nil, fmt.Errorf("ask Prometheus for its rules: %w", err)
	}
	for _, group := range answer.Data.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules, nil
}

// Alert is an alert that has reached Alertmanager.
type Alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	Status      struct {
		State       string   `json:"state"`       // active, suppressed, unprocessed
		InhibitedBy []string `json:"inhibitedBy"` // alerts that keep it back
	} `json:"status"`
}

// Name returns the alert's name.
func (a Alert) Name() string { return a.Labels["alertname"] }

// Alerts returns the alerts that last, those that are kept back included.
func (a Alertmanager) Alerts(ctx context.Context) ([]Alert, error) {
	var alerts []Alert
	err := GetJSON(ctx, string(a)+"/api/v2/alerts", nil, &alerts)
	if err != nil {
		return nil, fmt.Errorf("ask Alertmanager for alerts: %w", err)
	}
	return alerts, nil
}

// Line is a line of a log. Labels has its structured metadata, too.
type Line struct {
	At     time.Time
	Text   string
	Labels map[string]string
}

// Query returns the oldest lines since a time that a LogQL expression chooses, at
// most limit of them, stream by stream.
func (l Loki) Query(ctx context.Context, expression string, since time.Time, limit int) (lines []Line, err error) {
	var answer struct {
		Data struct {
			Result []struct {
				Stream map[string]string `json:"stream"`
				Values [][2]string       `json:"values"` // nanoseconds, line
			} `json:"result"`
		} `json:"data"`
	}
	err = GetJSON(ctx, string(l)+"/loki/api/v1/query_range", url.Values{
		"query": {expression}, "start": {strconv.FormatInt(since.UnixNano(), 10)}, "direction": {"forward"},
		"end": {strconv.FormatInt(time.Now().Add(time.Minute).UnixNano(), 10)}, "limit": {strconv.Itoa(limit)},
	}, &answer)
	if err != nil {
		return nil, fmt.Errorf("ask Loki for %s: %w", expression, err)
	}
	for _, stream := range answer.Data.Result {
		for _, value := range stream.Values {
			ns, err := strconv.ParseInt(value[0], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("ask Loki for %s: %w", expression, err)
			}
			lines = append(lines, Line{At: time.Unix(0, ns), Text: value[1], Labels: stream.Stream})
		}
	}
	return lines, nil
}

// Count answers a LogQL expression that counts, such as
// sum(count_over_time({job="workers"}[1h])), as of now: the sum of its samples.
func (l Loki) Count(ctx context.Context, expression string) (sum float64, err error) {
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"` // seconds, and the value as text
			} `json:"result"`
		} `json:"data"`
	}
	if err := GetJSON(ctx, string(l)+"/loki/api/v1/query", url.Values{"query": {expression}}, &answer); err != nil {
		return 0, fmt.Errorf("ask Loki for %s: %w", expression, err)
	}
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, fmt.Errorf("ask Loki for %s: %w", expression, err)
		}
		sum += value
	}
	return sum, nil
}

// Labels returns the names of all labels: those that make streams.
func (l Loki) Labels(ctx context.Context) ([]string, error) {
	var answer struct {
		Data []string `json:"data"`
	}
	if err := GetJSON(ctx, string(l)+"/loki/api/v1/labels", nil, &answer); err != nil {
		return nil, fmt.Errorf("ask Loki for its labels: %w", err)
	}
	return answer.Data, nil
}
