// Elements of the page. A text is set as text, never as HTML, and only where it changes.

/** byID returns an element. */
export const byID = id => document.getElementById(id);

/** clone returns a new element of a template. */
export const clone = id => byID(id).content.firstElementChild.cloneNode(true);

/** field returns the element for a value. */
export const field = (element, name) => element.querySelector(`[data-field="${name}"]`);

/** setText sets the text of an element. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** setList sets the texts of the items of a list. */
export function setList(list, texts) {
  while (list.children.length > texts.length) list.lastElementChild.remove();
  texts.forEach((text, i) => setText(list.children[i] ?? list.appendChild(document.createElement("li")), text));
}

/** Keyed keeps one element of a container for each key, in the order of the keys. */
export class Keyed {
  constructor(container, create) {
    Object.assign(this, { container, create, elements: new Map() });
  }

  /** update creates, fills, orders and removes elements. fill(element, item) sets the content. */
  update(items, keyOf, fill) {
    const keys = new Set(items.map(keyOf));
    for (const [key, element] of this.elements) {
      if (!keys.has(key)) {
        element.remove();
        this.elements.delete(key);
      }
    }
    items.forEach((item, i) => {
      const key = keyOf(item);
      let element = this.elements.get(key);
      if (!element) this.elements.set(key, element = this.create(item));
      if (this.container.children[i] !== element) this.container.insertBefore(element, this.container.children[i] ?? null);
      fill(element, item);
    });
  }
}

/** bytes returns a size for people. */
export function bytes(n) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20]]) {
    if (n >= size) return `${(n / size).toFixed(n >= 10 * size ? 0 : 1)} ${unit}`;
  }
  return `${Math.round(n / 1024)} KiB`;
}

/** number returns a value with a unit, "–" where it is not known. */
export const number = (n, unit, digits = 0) => n ? `${n.toFixed(digits)} ${unit}` : "–";
