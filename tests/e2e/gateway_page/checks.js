// What is asked of the page in Chromium: has everything a name, is the structure sound, can the colours be told apart?

window.checks = {
  /** Each control, and its name. */
  names() {
    const text = (id) => document.getElementById(id)?.textContent ?? "";
    const name = (one) =>
      one.getAttribute("aria-label") ||
      (one.getAttribute("aria-labelledby") ?? "").split(" ").map(text).join("") ||
      [...(one.labels ?? [])].map((label) => label.textContent).join("") ||
      one.textContent;
    return [...document.querySelectorAll("button, input, select, textarea, a[href], [tabindex='0'], [role]")]
      .filter((one) => one.checkVisibility())
      .map((one) => [one.outerHTML.slice(0, 90), name(one).trim()]);
  },

  structure() {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const without = (selector, condition) => all(selector).filter((one) => !condition(one)).map((one) => one.outerHTML.slice(0, 90));
    const ids = all("[id]").map((one) => one.id);
    const kinds = ["for", "aria-labelledby", "aria-describedby", "list"];
    const references = kinds.flatMap((kind) => all(`[${kind}]`).flatMap((one) => one.getAttribute(kind).split(" ")));
    return {
      language: document.documentElement.lang,
      title: document.title,
      landmarks: ["header", "main", "footer"].map((name) => all(`body > ${name}`).length),
      headings: all("h1, h2, h3").filter((one) => one.checkVisibility()).map((one) => one.tagName),
      twice: ids.filter((id, index) => ids.indexOf(id) !== index),
      dangling: references.filter((id) => id && !ids.includes(id)),
      pictures: without("img", (one) => one.hasAttribute("alt")),
      charts: without("svg", (one) => one.getAttribute("role") === "img" && one.getAttribute("aria-label")),
      tables: without("table", (one) => one.caption?.textContent),
      heads: without("th", (one) => one.scope),
      rows: without("tbody tr", (one) => one.querySelector("th[scope=row]")),
      lists: without("li", (one) => one.parentElement.matches("ol:not([role]), ul:not([role])")),
      orders: without("[tabindex]", (one) => one.tabIndex <= 0),
      inline: without("*", (one) => ![...one.attributes].some(({ name }) => name.startsWith("on") || name === "style")),
    };
  },

  /** The contrast (WCAG 2) of each text, of the edges of controls, and of the lines of charts. */
  contrast() {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const luminance = (color) => {
      const [red, green, blue] = color.map((part) => linear(part / 255));
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const ground = (one) => {
      for (; one; one = one.parentElement) {
        const color = rgba(getComputedStyle(one).backgroundColor);
        if (color[3] === 255) return color;
      }
      return rgba("Canvas");
    };
    const ratio = (color, place) => {
      const [dark, light] = [luminance(rgba(color)), luminance(ground(place))].sort((one, other) => one - other);
      return (light + 0.05) / (dark + 0.05);
    };
    const visible = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
    const measured = (them, color, place = (one) => one) =>
      them.map((one) => [ratio(getComputedStyle(one)[color], place(one)), one.outerHTML.slice(0, 90)]);
    const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const controls = visible("input, select, textarea, button:not(.primary)");
    return {
      text: measured(visible("body *").filter(hasText), "color"),
      edges: measured(controls, "borderTopColor", (one) => one.parentElement),
      lines: measured(visible(".chart .line"), "stroke", (one) => one.closest("td")),
    };
  },

  /** What has the focus, and whether that can be seen. Behind the last of the page it is the browser's own. */
  focused() {
    const one = document.activeElement;
    const style = getComputedStyle(one);
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    return { name: one.id || one.textContent.trim().slice(0, 50), visible: outlined || one === document.body };
  },
};
