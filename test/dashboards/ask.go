package dashboards

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gpuqd/test/services/monitoring"
)

// get asks one of the servers' APIs for JSON.
func get(ctx context.Context, base, path string, form url.Values, data any) error {
	return monitoring.GetJSON(ctx, strings.TrimSuffix(base, "/")+path, form, &struct{ Data any }{data})
}

// series are the answers to a query: of logs stream and lines, of metrics samples.
type series struct {
	ResultType string
	Result     json.RawMessage
}

// ask tells whether a query shows anything: a line, or a sample that is a number.
func (l Live) ask(ctx context.Context, q Query, expr string) (bool, error) {
	base, path := l.Prometheus, "/api/v1/"
	if q.Loki {
		base, path = l.Loki, "/loki/api/v1/"
	}
	now := time.Now()
	form := url.Values{"query": {expr}}
	if q.Instant {
		path += "query"
		form.Set("time", seconds(now))
	} else {
		path += "query_range"
		form.Set("start", seconds(now.Add(-l.Span)))
		form.Set("end", seconds(now))
		form.Set("step", strconv.Itoa(max(1, int(max(l.Scrape, l.Span/200).Seconds()))))
	}
	var found series
	if err := get(ctx, base, path, form, &found); err != nil {
		return false, err
	}
	return found.shows()
}

func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

func (s series) shows() (bool, error) {
	if s.ResultType == "scalar" {
		var sample [2]any
		err := json.Unmarshal(s.Result, &sample)
		return err == nil && sample[1] != "NaN", err
	}
	var list []struct {
		Value  [2]any
		Values [][2]any
	}
	if err := json.Unmarshal(s.Result, &list); err != nil {
		return false, fmt.Errorf("a %s of another form: %w", s.ResultType, err)
	}
	for _, one := range list {
		for _, sample := range append(one.Values, one.Value) {
			// A quotient by 0 is NaN, which Grafana leaves out.
			if sample[1] != nil && sample[1] != "NaN" {
				return true, nil
			}
		}
	}
	return false, nil
}

func (l Live) labelValues(ctx context.Context, of, label string) ([]string, error) {
	var values []string
	now := time.Now()
	err := get(ctx, l.Prometheus, "/api/v1/label/"+url.PathEscape(label)+"/values",
		url.Values{"match[]": {of}, "start": {seconds(now.Add(-l.Span))}, "end": {seconds(now)}}, &values)
	return values, err
}

// someJob is the ID of the job that printed last.
func (l Live) someJob(ctx context.Context) (string, error) {
	now := time.Now()
	var found struct {
		Result []struct{ Stream map[string]string }
	}
	err := get(ctx, l.Loki, "/loki/api/v1/query_range", url.Values{
		"query": {`{job="workers"} | identifier="gpuqd-job" | job_id!=""`}, "limit": {"1"},
		"start": {seconds(now.Add(-l.Span))}, "end": {seconds(now)},
	}, &found)
	if err != nil {
		return "", err
	}
	for _, one := range found.Result {
		if id := one.Stream["job_id"]; id != "" {
			return id, nil
		}
	}
	return "", errors.New("no job has printed anything in that time: submit one that does")
}
