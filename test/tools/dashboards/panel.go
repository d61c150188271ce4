package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/logs"
	"github.com/grafana/grafana-foundation-sdk/go/loki"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/text"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// panel is one panel: what it shows (how), in which unit, what it means, and what to read
// when it looks bad. Make one with graph, number, bars, rows or lines.
type panel struct {
	how         func() (dashboard.Panel, error)
	title       string
	unit        string // one of package units
	description string
	queries     []query
	width       uint32 // of 24

	atMost1   bool     // 0 to 1
	steps     []step   // what to colour
	words     []word   // what to say instead of numbers
	runbooks  []string // file names in docs/runbooks, without .md
	columns   []column // of a table
	nothing   string   // what an empty panel says, where that is good news
	drillDown []link   // of what is shown: a click on a series or cell
}

// step colours what is at least from. What is below all steps is green; below, as the
// first, makes it something else.
type step struct {
	from   float64
	colour string
}

func below(colour string) step { return step{math.Inf(-1), colour} }

// word says text instead of value.
type word struct {
	value        int
	text, colour string
}

// column renames a column of a table, gives it a unit of its own and links it.
type column struct {
	label, title, unit string
	links              []link
}

// link leads to a URL; Grafana fills in variables such as ${__field.labels.host}.
type link struct{ title, url string }

const (
	green  = "green"
	orange = "orange"
	red    = "red"
	blue   = "blue"
)

// graph shows series over time as lines.
func graph(title, unit, description string, queries ...query) panel {
	return panel{how: func() (dashboard.Panel, error) { return lineGraph(common.StackingModeNone) }, title: title, unit: unit, description: description, queries: queries, width: 12}
}

// stack shows series over time as areas upon each other: parts of a whole.
func stack(title, unit, description string, queries ...query) panel {
	p := graph(title, unit, description, queries...)
	p.how = func() (dashboard.Panel, error) { return lineGraph(common.StackingModeNormal) }
	return p
}

func lineGraph(stacking common.StackingMode) (dashboard.Panel, error) {
	opacity := 0.0
	if stacking != common.StackingModeNone {
		opacity = 60
	}
	return timeseries.NewPanelBuilder().
		DrawStyle(common.GraphDrawStyleLine).LineWidth(1).FillOpacity(opacity).ShowPoints(common.VisibilityModeAuto).
		Stacking(common.NewStackingConfigBuilder().Mode(stacking).Group("A")).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		Build()
}

// number shows each series as it is now in large. It asks for now alone: what a host that
// is down said last would be taken for its state.
func number(title, unit, description string, queries ...query) panel {
	return panel{how: func() (dashboard.Panel, error) {
		return stat.NewPanelBuilder().ReduceOptions(last()).ColorMode(common.BigValueColorModeValue).
			GraphMode(common.BigValueGraphModeNone).TextMode(common.BigValueTextModeAuto).Orientation(common.VizOrientationAuto).Build()
	}, title: title, unit: unit, description: description, queries: atOnce(queries), width: 4}
}

// bars shows each series as it is now as a bar.
func bars(title, unit, description string, queries ...query) panel {
	return panel{how: func() (dashboard.Panel, error) {
		return bargauge.NewPanelBuilder().ReduceOptions(last()).Orientation(common.VizOrientationHorizontal).
			DisplayMode(common.BarGaugeDisplayModeBasic).ShowUnfilled(true).Build()
	}, title: title, unit: unit, description: description, queries: atOnce(queries), width: 8}
}

// atOnce makes queries ask for the present, as series and not as rows.
func atOnce(queries []query) []query {
	now := slices.Clone(queries)
	for i := range now {
		now[i].instant = true
	}
	return now
}

func last() cog.Builder[common.ReduceDataOptions] {
	return common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}).Values(false)
}

// rows shows series as rows of a table, their labels as columns. Queries are to be made
// by now; several are joined by the labels that they share.
func rows(title, unit, description string, columns []column, queries ...query) panel {
	return panel{how: func() (dashboard.Panel, error) {
		return table.NewPanelBuilder().ShowHeader(true).Filterable(true).
			Footer(common.NewTableFooterOptionsBuilder().Show(false).Reducer([]string{})).Build()
	}, title: title, unit: unit, description: description, queries: queries, width: 24, columns: columns}
}

// lines shows lines of logs, the newest first.
func lines(title, description string, queries ...query) panel {
	return panel{how: func() (dashboard.Panel, error) {
		return logs.NewPanelBuilder().ShowTime(true).WrapLogMessage(true).EnableLogDetails(true).
			SortOrder(common.LogsSortOrderDescending).DedupStrategy(common.LogsDedupStrategyNone).Build()
	}, title: title, unit: "none", description: description, queries: queries, width: 24}
}

// page shows a text in Markdown. It asks nothing.
func page(title, markdown string) panel {
	return panel{how: func() (dashboard.Panel, error) {
		return text.NewPanelBuilder().Mode(text.TextModeMarkdown).Content(markdown).Build()
	}, title: title, width: 24}
}

func (p panel) wide(width uint32) panel       { p.width = width; return p }
func (p panel) share() panel                  { p.atMost1 = true; return p }
func (p panel) colour(steps ...step) panel    { p.steps = steps; return p }
func (p panel) say(words ...word) panel       { p.words = words; return p }
func (p panel) quiet(nothing string) panel    { p.nothing = nothing; return p }
func (p panel) runbook(names ...string) panel { p.runbooks = names; return p }
func (p panel) to(title, url string) panel {
	p.drillDown = append(p.drillDown, link{title, url})
	return p
}
func bad(from float64) []step       { return []step{{from, red}} }
func onOff(one, zero string) []word { return []word{{1, one, green}, {0, zero, red}} }

func (l link) field() dashboard.DashboardLink {
	return dashboard.DashboardLink{Title: l.title, Type: dashboard.DashboardLinkTypeLink, Url: &l.url, Tags: []string{}}
}

func prometheusRef() common.DataSourceRef { return sourceRef("prometheus", "gpuq-prometheus") }
func lokiRef() common.DataSourceRef       { return sourceRef("loki", "gpuq-loki") }
func sourceRef(kind, uid string) common.DataSourceRef {
	return common.DataSourceRef{Type: &kind, Uid: &uid}
}

// build makes what Grafana reads.
func (p panel) build(id uint32, at dashboard.GridPos, runbooks runbooks) (dashboard.Panel, error) {
	out, err := p.how()
	if err != nil {
		return out, fmt.Errorf("panel %q: %w", p.title, err)
	}
	out.Id, out.Title, out.GridPos = &id, &p.title, &at
	if len(p.queries) == 0 {
		return out, nil
	}
	out.Description = &p.description
	if err := p.ask(&out); err != nil {
		return out, fmt.Errorf("panel %q: %w", p.title, err)
	}
	for _, name := range p.runbooks {
		url, err := runbooks.url(name)
		if err != nil {
			return out, fmt.Errorf("panel %q: %w", p.title, err)
		}
		out.Links = append(out.Links, link{"What to do: " + name, url}.panelLink())
	}
	p.dress(&out)
	return out, nil
}

func (l link) panelLink() dashboard.DashboardLink {
	return dashboard.DashboardLink{Title: l.title, Type: dashboard.DashboardLinkTypeLink, Url: &l.url, Tags: []string{}, TargetBlank: true}
}

// ask adds the queries, which are all of one data source.
func (p panel) ask(out *dashboard.Panel) error {
	for i, q := range p.queries {
		refID := string(rune('A' + i))
		if (q.prom == "") == (q.logs == "") || (q.prom == "") != (p.queries[0].prom == "") {
			return fmt.Errorf("query %s: a panel asks either Prometheus or Loki", refID)
		}
		if q.prom != "" {
			ref := prometheusRef()
			out.Datasource = &ref
			b := prometheus.NewDataqueryBuilder().Expr(string(q.prom)).LegendFormat(q.legend).RefId(refID).Datasource(ref)
			if q.instant {
				b = b.Instant()
				if p.columns != nil {
					b = b.Format(prometheus.PromQueryFormatTable)
				}
			} else {
				b = b.Range()
			}
			target, err := b.Build()
			if err != nil {
				return err
			}
			out.Targets = append(out.Targets, target)
			continue
		}
		ref := lokiRef()
		out.Datasource = &ref
		queryType := "range"
		if q.instant {
			queryType = "instant"
		}
		target, err := loki.NewDataqueryBuilder().Expr(string(q.logs)).LegendFormat(q.legend).RefId(refID).
			QueryType(queryType).Datasource(ref).Build()
		if err != nil {
			return err
		}
		out.Targets = append(out.Targets, target)
	}
	return nil
}

// dress sets unit, colours, words, columns and links of what is shown.
func (p panel) dress(out *dashboard.Panel) {
	if out.FieldConfig == nil {
		out.FieldConfig = dashboard.NewFieldConfigSource()
	}
	field := &out.FieldConfig.Defaults
	field.Unit = &p.unit
	if p.nothing != "" {
		field.NoValue = &p.nothing
	}
	if p.atMost1 {
		field.Min, field.Max = pointer(0.0), pointer(1.0)
	}
	// Without any, Grafana takes what is more than 80 for bad.
	steps := []dashboard.Threshold{{Color: p.base()}}
	for _, s := range p.steps {
		if !math.IsInf(s.from, -1) {
			steps = append(steps, dashboard.Threshold{Value: &s.from, Color: s.colour})
		}
	}
	field.Thresholds = &dashboard.ThresholdsConfig{Mode: dashboard.ThresholdsModeAbsolute, Steps: steps}
	if len(p.words) > 0 {
		field.Mappings = []dashboard.ValueMapping{{ValueMap: wordMap(p.words)}}
	}
	for _, l := range p.drillDown {
		field.Links = append(field.Links, l.field())
	}
	p.arrange(out)
}

// base is the colour of what is below all steps: neutral where nothing is good or bad.
func (p panel) base() string {
	switch {
	case len(p.steps) == 0:
		return blue
	case math.IsInf(p.steps[0].from, -1):
		return p.steps[0].colour
	}
	return green
}

func wordMap(words []word) *dashboard.ValueMap {
	m := &dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: map[string]dashboard.ValueMappingResult{}}
	for i, w := range words {
		m.Options[strconv.Itoa(w.value)] = dashboard.ValueMappingResult{Text: &w.text, Color: &w.colour, Index: pointer(int32(i))}
	}
	return m
}

// arrange joins the queries of a table and names its columns.
func (p panel) arrange(out *dashboard.Panel) {
	if p.columns == nil {
		return
	}
	rename := map[string]string{}
	order := map[string]int{}
	for i, c := range p.columns {
		rename[c.label], order[c.label] = c.title, i
		var set []dashboard.DynamicConfigValue
		if c.unit != "" {
			set = append(set, dashboard.DynamicConfigValue{Id: "unit", Value: c.unit})
		}
		if len(c.links) > 0 {
			var links []dashboard.DashboardLink
			for _, l := range c.links {
				links = append(links, l.field())
			}
			set = append(set, dashboard.DynamicConfigValue{Id: "links", Value: links})
		}
		if len(set) > 0 {
			out.FieldConfig.Overrides = append(out.FieldConfig.Overrides, dashboard.DashboardFieldConfigSourceOverrides{
				Matcher: dashboard.MatcherConfig{Id: "byName", Options: c.title}, Properties: set,
			})
		}
	}
	if p.queries[0].logs != "" { // of which each series is a table of its own
		out.Transformations = append(out.Transformations, dashboard.DataTransformerConfig{Id: "labelsToFields", Options: map[string]any{"mode": "columns"}})
	}
	if len(p.queries) > 1 || p.queries[0].logs != "" {
		out.Transformations = append(out.Transformations, dashboard.DataTransformerConfig{Id: "merge", Options: map[string]any{}})
	}
	out.Transformations = append(out.Transformations, dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
		"excludeByName": map[string]bool{"Time": true}, "indexByName": order, "renameByName": rename,
	}})
}

func pointer[T any](v T) *T { return &v }
