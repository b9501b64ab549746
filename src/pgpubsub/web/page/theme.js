// Light or dark: as the system says, unless the button has said otherwise. It runs before the page is drawn.
"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  try {
    const chosen = localStorage.getItem("pgpubsub theme");
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  } catch {} // where nothing may be kept

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => (button.textContent = isDark() ? "Light" : "Dark");
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("pgpubsub theme", root.dataset.theme);
      } catch {}
      label();
    });
    system.addEventListener("change", label);
    label();
  });
})();
