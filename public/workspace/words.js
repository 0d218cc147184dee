// The tab about the next word: which ones are likely, and how one is chosen.

import { debounced } from "./dom.js";
import { Distribution } from "./distribution.js";
import { Fan } from "./fan.js";
import { on } from "./messages.js";
import { story } from "./story.js";
import { View } from "./view.js";

/** The fan above the picture of the distribution. */
export class Words extends View {
  name = "words";

  constructor() {
    super("Words");
    this.fan = new Fan(this);
    this.distribution = new Distribution(this);
    const stale = debounced(() => this.stale(), 60);
    for (const type of ["opened", "elsewhere"]) story.addEventListener(type, stale);
    story.addEventListener("passages", () => this.isShown && this.fan.drawEnd());
    on("settings", (settings) => this.isShown && this.distribution.take(settings));
    let model = null;
    on("settings", (settings) => {
      if (model !== null && settings.model !== model) stale();
      model = settings.model ?? model;
    });
  }

  hide() {
    super.hide();
    this.distribution.flush();
  }

  load() {
    const none = this.noStory();
    if (none) return this.body.replaceChildren(none);
    if (!this.fan.element.isConnected) this.body.replaceChildren(
      this.fan.element,
      this.distribution.element,
    );
    return Promise.all([this.fan.load(), this.distribution.load()]);
  }

  /** A digit takes a word. */
  key(event) {
    const isDigit = /^[1-9]$/.test(event.key) && !event.ctrlKey && !event.altKey && !event.metaKey;
    return isDigit && this.fan.take(Number(event.key) - 1);
  }
}
