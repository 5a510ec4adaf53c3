// One listener for every slider of the page, also for those that are added later.
document.addEventListener("input", (event) => {
  const slider = event.target.closest(".slider");
  if (!slider) return;
  slider.style.setProperty("--at", `${event.target.value}%`);
  event.target.setAttribute("aria-valuetext", `${event.target.value} %`);
});
