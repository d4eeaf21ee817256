package settings

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// parsers parse the types for which the errors of the standard library name no remedy.
var parsers = map[reflect.Type]env.ParserFunc{
	reflect.TypeFor[bool](): func(v string) (any, error) { return parseBool(v) },
	reflect.TypeFor[int](): func(v string) (any, error) {
		n, err := strconv.Atoi(strings.TrimSpace(v))
		if err != nil {
			return nil, errors.New("is not a number; set one such as 4")
		}
		return n, nil
	},
	reflect.TypeFor[time.Duration](): func(v string) (any, error) {
		d, err := time.ParseDuration(strings.TrimSpace(v))
		if err != nil {
			return nil, errors.New("is not a duration; set one such as 2160h")
		}
		return d, nil
	},
}

// parseBool parses a boolean, in the forms that are usual in environment variables.
func parseBool(v string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(v)) {
	case "1", "t", "true", "y", "yes", "on":
		return true, nil
	case "0", "f", "false", "n", "no", "off":
		return false, nil
	}
	return false, errors.New("is not a boolean; set true or false")
}

// translateError returns the errors of the parser with the names of the variables instead of
// those of the fields.
func translateError(err error, values map[string]string) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return fmt.Errorf("settings: %w", err)
	}
	var errs []error
	for _, err := range all.Errors {
		var parse env.ParseError
		if !errors.As(err, &parse) {
			errs = append(errs, fmt.Errorf("settings: %w", err))
			continue
		}
		name := parse.Name
		if f, ok := reflect.TypeFor[Settings]().FieldByName(parse.Name); ok {
			name = f.Tag.Get("env")
		}
		value := ""
		if _, named := parsers[parse.Type]; named {
			value = fmt.Sprintf("%q ", values[name])
		}
		remedy := ""
		if parse.Type == reflect.TypeFor[[]gfx.Target]() {
			remedy = "; set targets such as gfx1100,gfx1101"
		}
		errs = append(errs, fmt.Errorf("settings: %s: %s%w%s", name, value, parse.Err, remedy))
	}
	return errors.Join(errs...)
}

// trimLists removes spaces around the elements of lists, and empty elements. It returns
// an error for a list without elements.
func trimLists(values map[string]string) error {
	var errs []error
	for f := range reflect.TypeFor[Settings]().Fields() {
		name := f.Tag.Get("env")
		v, ok := values[name]
		if !ok || f.Type.Kind() != reflect.Slice {
			continue
		}
		sep := separator(f)
		var parts []string
		for part := range strings.SplitSeq(v, sep) {
			if part = strings.TrimSpace(part); part != "" {
				parts = append(parts, part)
			}
		}
		if len(parts) == 0 {
			errs = append(errs, fmt.Errorf("settings: %s: %q lists nothing; unset it for the default, %q", name, v, f.Tag.Get("envDefault")))
		}
		values[name] = strings.Join(parts, sep)
	}
	return errors.Join(errs...)
}

// separator returns the separator of a list.
func separator(f reflect.StructField) string {
	return cmp.Or(f.Tag.Get("envSeparator"), ",")
}

// unknown returns an error for each variable that begins with GOROCM_ and is no
// setting.
func unknown(values map[string]string) error {
	params, err := env.GetFieldParams(&Settings{})
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	known := slices.Clone(otherVariables)
	for _, p := range params {
		known = append(known, p.Key)
	}
	slices.Sort(known)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if strings.HasPrefix(name, "GOROCM_") && !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("settings: %s is not a setting; `mage config` lists them", name))
		}
	}
	return errors.Join(errs...)
}
