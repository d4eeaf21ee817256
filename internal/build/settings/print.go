package settings

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/caarlos0/env/v11"
)

// Print writes a table of the settings: name, value and meaning, one per line.
func (s *Settings) Print(w io.Writer) error {
	params, err := env.GetFieldParams(s)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range s.rows(params) {
		if _, err := fmt.Fprintln(tw, row); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// rows returns name, value and meaning of each setting, tab-separated.
func (s *Settings) rows(params []env.FieldParams) []string {
	v := reflect.ValueOf(s).Elem()
	rows := make([]string, 0, len(params))
	for i, p := range params {
		value := fmt.Sprint(v.Field(i).Interface())
		if f := v.Field(i); f.Kind() == reflect.Slice {
			parts := make([]string, f.Len())
			for j := range parts {
				parts[j] = fmt.Sprint(f.Index(j).Interface())
			}
			value = strings.Join(parts, separator(v.Type().Field(i)))
		}
		rows = append(rows, p.Key+"\t"+value+"\t"+v.Type().Field(i).Tag.Get("help"))
	}
	return rows
}
