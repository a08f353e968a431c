// Package api has what clients and server share.
package api

// Options are what a request can say of how its model runs.
type Options struct {
	Runner
	NumKeep    int `json:"num_keep"`    // cells at the start of the cache that a shift leaves alone
	NumPredict int `json:"num_predict"` // tokens, as many as there are when it is negative
}

// Runner are the options that a model is loaded with. Of another one it is loaded anew.
type Runner struct {
	NumCtx          int `json:"num_ctx"` // cells of the cache
	DraftNumPredict int `json:"draft_num_predict,omitempty"`
}

// DefaultOptions are the options of a request that says nothing.
func DefaultOptions() Options {
	return Options{Runner: Runner{NumCtx: 4096}, NumKeep: 4, NumPredict: -1}
}
