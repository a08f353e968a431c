package llm

// predict( in a comment: return weights + cache
func predictAll(a int) uint64 { return predict(a, "return weights + cache") }

func predict(a int,
	name string) uint64 {
	cache := `raw } string`
	return weights + cache
}
