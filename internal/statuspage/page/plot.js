// Plots of the last quarter of an hour.

import { clone, setText, field } from "./view.js";

const span = 15 * 60 * 1000;

/** Plot draws one value of the samples over time. */
export class Plot {
  constructor(title, unit, format) {
    this.element = clone("plot-template");
    this.title = title;
    this.format = format;
    setText(this.element.querySelector("h3"), `${title}, ${unit}`);
  }

  /** draw shows the points {time, value}, the oldest first. limit is the top of the axis, 0: the largest value. */
  draw(points, now, limit = 0) {
    const largest = points.reduce((top, p) => Math.max(top, p.value), 0);
    const top = limit || largest || 1;
    const x = p => (300 * (1 - (now - p.time) / span)).toFixed(1);
    const y = p => (78 - 76 * Math.min(p.value / top, 1)).toFixed(1);
    const shown = points.filter(p => now - p.time <= span);
    const line = shown.map(p => `${x(p)} ${y(p)}`).join("L");
    this.element.querySelector(".curve").setAttribute("d", line && `M${line}`);
    this.element.querySelector(".area").setAttribute("d", line && `M${x(shown[0])} 78L${line}L${x(shown.at(-1))} 78Z`);
    const last = shown.at(-1)?.value ?? 0;
    setText(field(this.element, "now"), `now ${this.format(last)}`);
    setText(field(this.element, "max"), `at most ${this.format(largest)}`);
    this.element.querySelector("svg").setAttribute("aria-label", `${this.title} over the last 15 minutes: now ${this.format(last)}, at most ${this.format(largest)}`);
  }
}
