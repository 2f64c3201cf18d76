// What scrolls sideways can be scrolled with the keyboard: Safari gives such an element no focus.
addEventListener("DOMContentLoaded", () => {
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  for (const element of document.querySelectorAll(".highlight pre, .table-wrapper")) {
    observer.observe(element);
  }
});
