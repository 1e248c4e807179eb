// Reads what Prometheus will read, with Prometheus's own parsers: `rules` a file of rules, as `promtool check rules` does, and
// `queries` a JSON list of expressions, as Grafana asks them. `firing` runs alerts over made-up series with Prometheus's own engine, as
// `promtool test rules` does, and writes as JSON which fire in the end. All come by the standard input; each fault is a line, and the end is 1.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	faults := []error{}
	switch {
	case err != nil:
		faults = append(faults, err)
	case len(os.Args) == 2 && os.Args[1] == "rules":
		_, faults = rulefmt.Parse(text, false, model.UTF8Validation)
	case len(os.Args) == 2 && os.Args[1] == "queries":
		var queries []string
		if err := json.Unmarshal(text, &queries); err != nil {
			faults = append(faults, err)
		}
		for _, query := range queries {
			if _, err := parser.ParseExpr(query); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", query, err))
			}
		}
	case len(os.Args) == 2 && os.Args[1] == "firing":
		if err := firing(text); err != nil {
			faults = append(faults, err)
		}
	default:
		faults = append(faults, fmt.Errorf("write promql rules, promql queries, or promql firing"))
	}
	for _, fault := range faults {
		fmt.Fprintln(os.Stderr, fault)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
}
