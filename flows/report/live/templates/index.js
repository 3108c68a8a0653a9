/** Seconds between two looks at the list. */
const EVERY = 4;

setInterval(async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch(new URL("/rows", location.origin));
    if (answer.ok) document.querySelector("#rows").innerHTML = await answer.text();
  } catch { /* the server is away; the next look will tell */ }
}, EVERY * 1000);
