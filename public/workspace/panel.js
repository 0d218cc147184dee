// The workspace: a panel beside the chat, its button in the header, its tabs, its place.

import { storyOfPage } from "./api.js";
import { Branches } from "./branches.js";
import { button, el, icon } from "./dom.js";
import { Manuscript } from "./manuscript.js";
import { on } from "./messages.js";
import { isSepia, keep, kept, resize, restore, setSepia } from "./reading.js";
import { SHORTCUTS, listen } from "./shortcuts.js";
import { Steer } from "./steer.js";
import { Stories } from "./stories.js";
import { story } from "./story.js";
import { toast } from "./toast.js";
import { Words } from "./words.js";

const [NARROWEST, CHAT] = [320, 380]; // pixels for the panel, and for the chat beside it
const PASSAGE = /^#([0-9a-f]{8}-[0-9a-f-]{27})$/;
const page = document.documentElement;

class Panel {
  #tabs = [];
  #current = null;
  #wanted = Number(kept("storygen.width")) || 520;

  constructor() {
    this.manuscript = new Manuscript();
    this.views = [this.manuscript, new Branches(), new Steer(), new Words(), new Stories()];
    this.sections = el("div", { class: "ws-sections" });
    this.tablist = el("div", { class: "ws-tabs", role: "tablist", "aria-label": "Workspace" });
    for (const view of this.views) this.#addTab(view);
    this.help = this.#help();
    this.element = el(
      "aside",
      { id: "workspace", "aria-label": "Workspace", hidden: true },
      this.#grip(),
      this.#header(),
      this.help,
      this.sections,
    );
    this.opener = el(
      "button",
      {
        type: "button",
        id: "workspace-button",
        title: "Manuscript (Alt+M)",
        "aria-controls": "workspace",
        "aria-expanded": "false",
        onclick: () => this.toggle(),
      },
      icon("book"),
      el("span", {}, "Manuscript"),
    );
    this.tablist.addEventListener("keydown", (event) => this.#turn(event));
    document.body.append(this.element);
    this.#follow();
    this.select(kept("storygen.tab") || "manuscript");
    const isWide = innerWidth >= 768;
    if (kept("storygen.open") === "yes" && isWide) this.toggle(true);
  }

  get isOpen() {
    return !this.element.hidden;
  }

  /** Open or close it. */
  toggle(isOpen = !this.isOpen) {
    if (isOpen === this.isOpen) return;
    this.element.hidden = !isOpen;
    page.dataset.workspace = isOpen ? "open" : "closed";
    this.opener.setAttribute("aria-expanded", String(isOpen));
    keep("storygen.open", isOpen ? "yes" : "");
    this.#fit();
    if (isOpen) {
      story.watch();
      this.#current.show();
    } else {
      this.#current.hide();
      story.isWatched = false;
      if (this.element.contains(document.activeElement)) this.opener.focus();
    }
  }

  /** Show a tab. */
  select(name) {
    const view = this.views.find((each) => each.name === name) ?? this.manuscript;
    if (view === this.#current) return;
    if (this.isOpen) this.#current?.hide();
    this.#current = view;
    keep("storygen.tab", view.name);
    for (const { tab, section, of } of this.#tabs) {
      const isMine = of === view;
      tab.setAttribute("aria-selected", String(isMine));
      tab.setAttribute("tabindex", isMine ? "0" : "-1");
      section.hidden = !isMine;
    }
    if (this.isOpen) view.show();
  }

  /** A key that no text field wants; whether it meant something. */
  key(event) {
    return this.isOpen && Boolean(this.#current.key?.(event));
  }

  /** Close what is open, the innermost first. */
  escape() {
    if (!this.isOpen) return false;
    if (!this.help.hidden) this.#showHelp(false);
    else if (!this.manuscript.closeTools()) this.toggle(false);
    return true;
  }

  #addTab(view) {
    const tab = el(
      "button",
      {
        type: "button",
        role: "tab",
        id: `ws-tab-${view.name}`,
        "aria-controls": `ws-${view.name}`,
        onclick: () => this.select(view.name),
      },
      view.label,
    );
    const section = el(
      "section",
      { id: `ws-${view.name}`, role: "tabpanel", "aria-labelledby": tab.id, hidden: true },
      view.element,
    );
    this.#tabs.push({ tab, section, of: view });
    this.tablist.append(tab);
    this.sections.append(section);
  }

  #turn(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = this.#tabs.findIndex(({ of }) => of === this.#current);
    const next = this.#tabs.at((at + step) % this.#tabs.length);
    this.select(next.of.name);
    next.tab.focus();
    event.preventDefault();
  }

  #header() {
    const sepia = button("Sepia paper", () => {
      setSepia(!isSepia());
      sepia.setAttribute("aria-pressed", String(isSepia()));
    }, { picture: "lamp", "aria-pressed": String(isSepia()) });
    const size = (step, label, sign) => button(sign, () => resize(step), {
      title: label,
      "aria-label": label,
      kind: "ws-picture",
    });
    return el(
      "header",
      { class: "ws-header" },
      this.tablist,
      el(
        "span",
        { class: "ws-header-tools" },
        size(-1, "Smaller letters", "A−"),
        size(1, "Larger letters", "A+"),
        sepia,
        (
          this.asks = button("Keys", () => this.#showHelp(this.help.hidden), {
            picture: "help",
            title: "Keys",
            "aria-expanded": "false",
          })
        ),
        button("Close the panel", () => this.toggle(false), {
          picture: "close",
          title: "Close (Esc, Alt+M)",
        }),
      ),
    );
  }

  #help() {
    const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
    const named = (keys) => (isMac ? keys.replace("Ctrl", "⌘").replace("Alt", "⌥") : keys);
    const rows = SHORTCUTS.map(
      ([keys, what]) => [el("dt", {}, el("kbd", {}, named(keys))), el("dd", {}, what)],
    );
    return el("dl", { class: "ws-help ws-popover", hidden: true, "aria-label": "Keys" }, rows);
  }

  #showHelp(isShown) {
    this.help.hidden = !isShown;
    this.asks.setAttribute("aria-expanded", String(isShown));
  }

  #grip() {
    const grip = el("div", {
      class: "ws-grip",
      role: "separator",
      tabindex: 0,
      "aria-orientation": "vertical",
      "aria-label": "Width of the panel",
    });
    const set = (width) => {
      this.#wanted = width;
      this.#fit();
      keep("storygen.width", Math.round(this.#wanted));
    };
    grip.addEventListener("pointerdown", (event) => {
      grip.setPointerCapture(event.pointerId);
      const move = ({ clientX }) => set(innerWidth - clientX);
      grip.addEventListener("pointermove", move);
      grip.addEventListener(
        "lostpointercapture",
        () => grip.removeEventListener("pointermove", move),
        { once: true },
      );
      event.preventDefault();
    });
    grip.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: 24, ArrowRight: -24 }[event.key];
      if (step) set(this.#wanted + step);
    });
    this.grip = grip;
    return grip;
  }

  /** The width that was wished for, as far as the window has it. */
  #fit() {
    const widest = Math.max(innerWidth - CHAT, NARROWEST);
    this.#wanted = Math.max(this.#wanted, NARROWEST);
    const width = Math.round(Math.min(this.#wanted, widest));
    page.style.setProperty("--workspace-width", `${width}px`);
    this.grip?.setAttribute("aria-valuenow", String(width));
  }

  /** Keep up with a page that Chainlit draws anew, and that goes from story to story. */
  #follow() {
    addEventListener("resize", () => this.#fit());
    addEventListener("hashchange", () => this.#followLink());
    addEventListener("popstate", () => this.#look());
    new MutationObserver(() => this.#look()).observe(document.body, {
      childList: true,
      subtree: true,
    });
    on("again", ({ same }) => same || story.refresh(true));
    story.addEventListener(
      "failed",
      ({ detail }) => toast(detail.message, ["Try again", () => story.refresh()]),
    );
    this.#look();
    this.#followLink();
  }

  #look() {
    if (!this.opener.isConnected) document.querySelector(
      "#header > :last-child",
    )?.prepend(this.opener);
    const id = storyOfPage();
    if (id !== story.id && (id || location.pathname !== this.#path)) story.open(id);
    this.#path = location.pathname;
  }

  #path = location.pathname;

  #followLink() {
    const passage = location.hash.match(PASSAGE)?.[1];
    if (!passage) return;
    this.select("manuscript");
    this.toggle(true);
    this.manuscript.reveal(passage);
  }
}

restore();
listen(new Panel());
