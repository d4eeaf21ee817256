package licences

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// FromPage returns the components of the web page that is in the command. file is the
// list that docker/recipe writes beside the page.
func FromPage(file string) ([]Component, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("components of the web page: %w", err)
	}
	var list []struct {
		Name, Version, PURL, Integrity, Licence string
		Texts                                   []Text
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("components of the web page: %s: %w", file, err)
	}
	var out []Component
	for _, e := range list {
		c := Component{Kind: WebPage, Name: e.Name, Version: e.Version, PURL: e.PURL, Sum: e.Integrity}
		for _, t := range e.Texts {
			c.Texts = append(c.Texts, Text{Name: t.Name, Body: strings.TrimRight(strings.ReplaceAll(t.Body, "\r\n", "\n"), "\n") + "\n"})
		}
		if len(c.Texts) == 0 || c.Name == "" || c.PURL == "" {
			return nil, fmt.Errorf("component %s %s of the web page: %w", e.Name, e.Version, ErrNoLicence)
		}
		c.describe()
		if len(c.Licences) == 0 && e.Licence != "" {
			c.Licences = []string{e.Licence} // the package's own statement
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("components of the web page: %s lists none", file)
	}
	return out, nil
}
