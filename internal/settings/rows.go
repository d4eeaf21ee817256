package settings

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/caarlos0/env/v11"
)

// rows gives name, value and meaning of each setting, tab-separated.
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
			sep := v.Type().Field(i).Tag.Get("envSeparator")
			if sep == "" {
				sep = ","
			}
			value = strings.Join(parts, sep)
		}
		rows = append(rows, p.Key+"\t"+value+"\t"+v.Type().Field(i).Tag.Get("help"))
	}
	return rows
}
