"use strict";
// The names of the tensors, those of llm.c, and what they are in words.

const IN_BLOCK = {
  ln1_mean: "the mean of the stream, in the layernorm before the attention",
  ln1_rstd: "1 / the standard deviation of the stream, in the layernorm before the attention",
  ln1: "the normalised stream that the attention reads",
  qkv: "the queries, keys and values of all heads",
  preatt: "the scores of a head, a query times each key",
  att: "the attention weights of a head",
  atty: "what each head has gathered, the sum of its values",
  attproj: "what the attention adds",
  residual2: "the stream after the attention",
  ln2_mean: "the mean of the stream, in the layernorm before the MLP",
  ln2_rstd: "1 / the standard deviation of the stream, in the layernorm before the MLP",
  ln2: "the normalised stream that the MLP reads",
  fch: "the hidden units of the MLP, before the GELU",
  fch_gelu: "the hidden units of the MLP, after the GELU",
  fcproj: "what the MLP adds",
  residual3: "the stream after the MLP",
};
const AFTER = {
  lnf_mean: "the mean of the stream, in the final layernorm",
  lnf_rstd: "1 / the standard deviation of the stream, in the final layernorm",
  lnf: "the normalised stream that the head reads",
  logits: "the logit of each token of the vocabulary",
  probs: "the probability of each token of the vocabulary",
  losses: "the loss at each position",
};
const BLOCK_PARAMETERS = {
  ln1w: "the weights of the layernorm before the attention",
  ln1b: "the biases of the layernorm before the attention",
  qkvw: "the weights that make queries, keys and values",
  qkvb: "the biases of queries, keys and values",
  attprojw: "the weights of the linear layer after the heads",
  attprojb: "the biases of the linear layer after the heads",
  ln2w: "the weights of the layernorm before the MLP",
  ln2b: "the biases of the layernorm before the MLP",
  fcw: "the weights of the MLP's first linear layer",
  fcb: "the biases of the MLP's first linear layer",
  fcprojw: "the weights of the MLP's second linear layer",
  fcprojb: "the biases of the MLP's second linear layer",
};
const OTHER_PARAMETERS = {
  wte: "the embedding of each token, which is the head too",
  wpe: "the embedding of each position",
  lnfw: "the weights of the final layernorm",
  lnfb: "the biases of the final layernorm",
};
const WORDS = { encoded: "the embedding", ...IN_BLOCK, ...AFTER, ...BLOCK_PARAMETERS, ...OTHER_PARAMETERS };
const MATRICES = ["wte", "wpe", "qkvw", "attprojw", "fcw", "fcprojw"];

/** What a tensor is, as dfcb.1: the gradient of the biases of ... in block 1. */
function tensorWords(name) {
  const [base, block] = name.split(".");
  const words = WORDS[base] ?? `the gradient of ${WORDS[base.slice(1)]}`;
  return block === undefined ? words : `${words} in block ${block}`;
}
