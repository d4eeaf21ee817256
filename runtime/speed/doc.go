// Package speed stores what was measured and what failed: how fast each backend of
// llama-server runs a model on a card, and which backend failed there. Package machine
// reads it when it plans a model, "go-rocm bench" writes it.
//
// A record holds for one card with one driver, kernel and bundle, and for models of one
// architecture and quantisation. When any of them changes, there is no record until
// somebody measures again. Each record is a file in the user's cache directory; a
// damaged or missing file is no record.
package speed
