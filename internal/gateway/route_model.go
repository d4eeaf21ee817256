package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm"
)

// routeModel finds the model that a request is for: the one that its body names,
// or else its query. A model that the key may not use does not exist for it.
func (g *Gateway) routeModel(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		if g.listsModels(r) {
			next.ServeHTTP(w, r) // concerns all models
			return
		}
		name := cmp.Or(x.name, r.URL.Query().Get("model"))
		status, err := g.models.Resolve(name)
		if err == nil && !x.key.allows(status) {
			err = ErrUnknownModel
		}
		if errors.Is(err, ErrUnknownModel) {
			writeError(w, http.StatusNotFound, "not_found_error", g.describeUnknown(x.key, name))
			return
		}
		if err != nil {
			g.rejectModel(w, r, err)
			return
		}
		x.model = status
		next.ServeHTTP(w, r)
	})
}

// visibleModels returns the models that a key may use.
func (g *Gateway) visibleModels(k *Key) []rocm.ModelStatus {
	return slices.DeleteFunc(g.models.List(), func(m rocm.ModelStatus) bool { return !k.allows(m) })
}

// describeUnknown says that there is no such model, and which names are near.
func (g *Gateway) describeUnknown(k *Key, name string) string {
	text := fmt.Sprintf("there is no model %q", name)
	if near := nearNames(name, g.visibleModels(k)); len(near) > 0 {
		text += "; near names are " + strings.Join(near, ", ")
	}
	return text + "; GET /v1/models lists the names"
}

// maxNearNames is how many names an error suggests.
const maxNearNames = 3

// nearNames returns the names and aliases that a client may have meant, in quotes,
// the nearest first.
func nearNames(name string, models []rocm.ModelStatus) []string {
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	wanted := strings.ToLower(name)
	for _, m := range models {
		for _, other := range append([]string{m.Name}, m.Aliases...) {
			lower := strings.ToLower(other)
			distance := editDistance(wanted, lower)
			if wanted != "" && (strings.Contains(lower, wanted) || strings.Contains(wanted, lower)) {
				distance = min(distance, 1)
			}
			if distance <= max(2, len(wanted)/3) {
				near = append(near, candidate{other, distance})
			}
		}
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.name, b.name))
	})
	var names []string
	for _, c := range near[:min(len(near), maxNearNames)] {
		names = append(names, fmt.Sprintf("%q", c.name))
	}
	return names
}

// editDistance returns how many bytes are inserted, deleted or replaced between
// two names. Names of more than 256 bytes are near to none.
func editDistance(a, b string) int {
	const limit = 256
	if len(a) > limit || len(b) > limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
