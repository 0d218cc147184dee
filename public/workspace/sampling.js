// What temperature, top-k, top-p and min-p make of a distribution, in the order the engine has.

/**
 * `tokens` as {text, p}, the likeliest first, at temperature 1. Each comes back with `q`, its
 * probability at the temperature, `share`, its probability after the cuts, and `cut`: the name of
 * what cut it, or null. Equally likely tokens share one fate, as in the engine. What is beyond the
 * tokens known here is left out of account.
 */
export function shaped(tokens, { temperature, top_k, top_p, min_p }) {
  const qs = atTemperature(tokens, temperature);
  const cut = new Array(tokens.length).fill(null);
  let kept = qs; // always the likeliest, since all three cut off the end
  const keepFrom = (name, threshold) => {
    const rest = kept.filter((q) => q >= threshold);
    cut.fill(name, rest.length, kept.length);
    kept = rest;
  };
  if (temperature === 0) keepFrom("temperature", 1);
  if (top_k > 0) keepFrom("top-k", kept[Math.min(top_k, kept.length) - 1]);
  if (top_p < 1) keepFrom("top-p", leastWithin(kept, top_p));
  if (min_p > 0) keepFrom("min-p", min_p * kept[0]);
  const mass = sum(kept);
  const shape = (token, i) => (
    { ...token, q: qs[i], share: i < kept.length ? qs[i] / mass : 0, cut: cut[i] }
  );
  return { tokens: tokens.map(shape), kept: kept.length, mass };
}

/** The least likely of the fewest whose share reaches top_p, the one that crosses it included. */
function leastWithin(qs, top_p) {
  const all = sum(qs);
  let before = 0;
  let least = qs[0];
  for (const q of qs) {
    if (before / all >= top_p) break;
    least = q;
    before += q;
  }
  return least;
}

function atTemperature(tokens, temperature) {
  if (temperature === 0) return tokens.map((_, i) => Number(i === 0));
  const logs = tokens.map(({ p }) => Math.log(p) / temperature);
  const top = Math.max(...logs);
  const weights = logs.map((log) => Math.exp(log - top));
  const all = sum(weights);
  return weights.map((weight) => weight / all);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
