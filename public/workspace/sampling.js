// What temperature, top-k, top-p and min-p make of a distribution, in the order the engine has.

/**
 * `tokens` as {text, p}, the likeliest first, at temperature 1. Each comes back with `q`, its
 * probability at the temperature, `share`, its probability after the cuts, and `cut`: the name of
 * what cut it, or null. What is beyond the tokens known here is left out of account.
 */
export function shaped(tokens, { temperature, top_k, top_p, min_p }) {
  const tempered = atTemperature(tokens, temperature);
  let kept = tempered.map((token, index) => ({ ...token, index }));
  const cut = new Array(tokens.length).fill(null);
  const narrow = (name, isKept) => {
    const sum = kept.reduce((total, token) => total + token.q, 0);
    let before = 0;
    kept = kept.filter((token, rank) => {
      const stays = rank === 0 || isKept(token.q / sum, before / sum, rank, kept[0].q / sum);
      before += token.q;
      if (!stays) cut[token.index] = name;
      return stays;
    });
  };
  if (temperature === 0) narrow("temperature", () => false);
  if (top_k > 0) narrow("top-k", (_q, _before, rank) => rank < top_k);
  if (top_p < 1) narrow("top-p", (_q, before) => before < top_p);
  if (min_p > 0) narrow("min-p", (q, _before, _rank, best) => q >= min_p * best);
  const mass = kept.reduce((total, token) => total + token.q, 0);
  const shares = new Map(kept.map((token) => [token.index, token.q / mass]));
  const result = tempered.map((token, i) => ({ ...token, share: shares.get(i) ?? 0, cut: cut[i] }));
  return { tokens: result, kept: kept.length, mass };
}

function atTemperature(tokens, temperature) {
  if (temperature === 0) return tokens.map((token, i) => ({ ...token, q: i === 0 ? 1 : 0 }));
  const logs = tokens.map(({ p }) => Math.log(p) / temperature);
  const top = Math.max(...logs);
  const weights = logs.map((log) => Math.exp(log - top));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return tokens.map((token, i) => ({ ...token, q: weights[i] / sum }));
}
