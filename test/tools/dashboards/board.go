package main

import (
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// board is one dashboard.
type board struct {
	uid, title string
	question   string // what it answers: its description
	since      string // the time it shows at first, such as now-6h
	variables  []variable
	rows       []row
}

// row is a headline with panels below it, from left to right and then further down.
type row struct {
	title  string
	height uint32
	panels []panel
}

func section(title string, height uint32, panels ...panel) row { return row{title, height, panels} }

// variable is what people choose above a dashboard.
type variable struct {
	name, label, description string
	values                   string // the PromQL of label_values(...); "" is a box to type into
	all                      bool   // several may be chosen, and at first all are
}

const columns = 24

// build makes what Grafana reads.
func (b board) build(runbooks runbooks) (dashboard.Dashboard, error) {
	d := dashboard.NewDashboardBuilder(b.title).Uid(b.uid).Description(b.question).Tags([]string{"gpuqd"}).
		Timezone("browser").Readonly().Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Time(b.since, "now").Refresh("30s").
		Link(dashboard.NewDashboardLinkBuilder("gpuqd").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{"gpuqd"}).KeepTime(true))
	for _, v := range b.variables {
		if v.values == "" {
			d = d.WithVariable(dashboard.NewTextBoxVariableBuilder(v.name).Label(v.label).Description(v.description).
				DefaultValue(dashboard.StringOrMap{String: pointer("")}))
			continue
		}
		d = d.WithVariable(v.query())
	}
	out, err := d.Build()
	if err != nil {
		return out, fmt.Errorf("dashboard %s: %w", b.uid, err)
	}
	out.Panels, err = b.place(runbooks)
	if err != nil {
		return out, fmt.Errorf("dashboard %s: %w", b.uid, err)
	}
	return out, nil
}

func (v variable) query() *dashboard.QueryVariableBuilder {
	query := dashboard.StringOrMap{Map: map[string]any{
		"qryType": 1, "query": "label_values(" + v.values + ")", "refId": "PrometheusVariableQueryEditor-VariableQuery",
	}}
	b := dashboard.NewQueryVariableBuilder(v.name).Label(v.label).Description(v.description).
		Datasource(prometheusRef()).Query(query).Definition("label_values(" + v.values + ")").
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortNaturalAsc)
	if v.all {
		b = b.Multi(true).IncludeAll(true).AllValue(".*").Current(dashboard.VariableOption{
			Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
			Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
		})
	}
	return b
}

// place gives each panel its place on the grid, and its number.
func (b board) place(runbooks runbooks) ([]dashboard.PanelOrRowPanel, error) {
	var out []dashboard.PanelOrRowPanel
	id, y := uint32(1), uint32(0)
	for _, r := range b.rows {
		if r.title != "" {
			title := r.title
			out = append(out, dashboard.PanelOrRowPanel{RowPanel: &dashboard.RowPanel{
				Type: "row", Title: &title, Id: id, Panels: []dashboard.Panel{}, GridPos: &dashboard.GridPos{H: 1, W: columns, Y: y},
			}})
			id++
			y++
		}
		x := uint32(0)
		for _, p := range r.panels {
			if x+p.width > columns {
				x, y = 0, y+r.height
			}
			built, err := p.build(id, dashboard.GridPos{H: r.height, W: p.width, X: x, Y: y}, runbooks)
			if err != nil {
				return nil, err
			}
			out = append(out, dashboard.PanelOrRowPanel{Panel: &built})
			id++
			x += p.width
		}
		y += r.height
	}
	return out, nil
}

// encode is the file's content.
func encode(d dashboard.Dashboard) ([]byte, error) {
	out, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", *d.Uid, err)
	}
	return append(out, '\n'), nil
}
