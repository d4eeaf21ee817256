package pages

import "fmt"

// ModelState returns an expression for the state that the page /status shows of a model.
func ModelState(model string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#model-list article")].find(e => e.querySelector("h3").textContent === %q)?.querySelector(".state").textContent`, model)
}
