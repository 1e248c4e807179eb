package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// How far samples of a series are apart, and how often alerts are looked at.
const step = time.Minute

// What comes in: alerts of a file of rules, and series in the notation of Prometheus's tests, as `up{pod="a"} 0+1x10`, from time 0 on.
type question struct {
	Alerts []struct {
		Alert string         `json:"alert"`
		Expr  string         `json:"expr"`
		For   model.Duration `json:"for"`
	} `json:"alerts"`
	Series []string `json:"series"`
}

// An alert that fires, with the labels that its expression leaves.
type alert struct {
	Alert  string            `json:"alert"`
	Labels map[string]string `json:"labels"`
}

func firing(text []byte) error {
	var asked question
	if err := json.Unmarshal(text, &asked); err != nil {
		return err
	}
	var all memory
	var end time.Duration
	for _, line := range asked.Series {
		of, values, err := parser.ParseSeriesDesc(line)
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		var samples []chunks.Sample
		for at, value := range values {
			if !value.Omitted {
				samples = append(samples, sample{(time.Duration(at) * step).Milliseconds(), value.Value})
			}
		}
		all = append(all, storage.NewListSeries(of, samples))
		end = max(end, time.Duration(len(values)-1)*step)
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute})
	found := []alert{}
	for _, rule := range asked.Alerts {
		begin := end - time.Duration(rule.For)
		if begin < 0 {
			continue
		}
		from, to := time.UnixMilli(begin.Milliseconds()), time.UnixMilli(end.Milliseconds())
		query, err := engine.NewRangeQuery(context.Background(), all, nil, rule.Expr, from, to, step)
		if err != nil {
			return fmt.Errorf("%s: %w", rule.Alert, err)
		}
		matrix, err := query.Exec(context.Background()).Matrix()
		if err != nil {
			return fmt.Errorf("%s: %w", rule.Alert, err)
		}
		for _, series := range matrix {
			// It fires once it has been there at each look for that long.
			if len(series.Floats) == int((end-begin)/step)+1 {
				found = append(found, alert{rule.Alert, series.Metric.Map()})
			}
		}
		query.Close()
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

// All series, for whoever asks.
type memory []*storage.SeriesEntry

func (all memory) Querier(from, to int64) (storage.Querier, error) { return all, nil }

func (all memory) Select(_ context.Context, _ bool, _ *storage.SelectHints, wanted ...*labels.Matcher) storage.SeriesSet {
	set := &set{at: -1}
	for _, series := range all {
		matches := true
		for _, matcher := range wanted {
			matches = matches && matcher.Matches(series.Labels().Get(matcher.Name))
		}
		if matches {
			set.of = append(set.of, series)
		}
	}
	return set
}

func (memory) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (memory) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (memory) Close() error { return nil }

// The series that somebody asked for.
type set struct {
	of []*storage.SeriesEntry
	at int
}

func (set *set) Next() bool {
	set.at++
	return set.at < len(set.of)
}

func (set *set) At() storage.Series { return set.of[set.at] }

func (*set) Err() error { return nil }

func (*set) Warnings() annotations.Annotations { return nil }

// A number at a time in milliseconds.
type sample struct {
	at    int64
	value float64
}

func (sample sample) T() int64 { return sample.at }

func (sample sample) F() float64 { return sample.value }

func (sample) H() *histogram.Histogram { return nil }

func (sample) FH() *histogram.FloatHistogram { return nil }

func (sample) Type() chunkenc.ValueType { return chunkenc.ValFloat }

func (sample sample) Copy() chunks.Sample { return sample }
