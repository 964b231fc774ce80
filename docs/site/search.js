// Search in the sections of all pages. SECTIONS is written before this: [{location, title, text}].
// Every word must be in a section; a word in its title counts more.

function found(query) {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word.length > 1);
  if (!words.length) return [];
  const scored = SECTIONS.map((section) => {
    const title = section.title.toLowerCase();
    const text = section.text.toLowerCase();
    const scores = words.map((word) => (title.includes(word) ? 10 : 0) + Math.min(text.split(word).length - 1, 5));
    return { section, score: Math.min(...scores) && scores.reduce((sum, score) => sum + score) };
  });
  return scored.filter((each) => each.score).sort((a, b) => b.score - a.score).slice(0, 20).map((each) => each.section);
}

function excerpt(text, query) {
  const at = text.toLowerCase().indexOf(query.toLowerCase().split(/\s+/)[0]);
  const from = Math.max(0, at - 60);
  return (from ? "…" : "") + text.slice(from, from + 160) + "…";
}

function show() {
  const query = document.getElementById("mkdocs-search-query").value.trim();
  const results = document.getElementById("mkdocs-search-results");
  results.replaceChildren();
  for (const section of found(query)) {
    const article = document.createElement("article");
    const link = document.createElement("a");
    link.href = `${base_url}/${section.location}`;
    link.textContent = section.title;
    const words = document.createElement("p");
    words.textContent = excerpt(section.text, query);
    article.append(link, words);
    results.append(article);
  }
  if (query && !results.childElementCount) results.textContent = "Nothing found: try fewer or shorter words.";
}

document.addEventListener("DOMContentLoaded", () => {
  const input = document.getElementById("mkdocs-search-query");
  if (input) input.addEventListener("input", show);
});
