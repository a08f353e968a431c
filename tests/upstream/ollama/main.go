package main

import (
	"fmt"
	"os"

	"github.com/ollama/ollama/server"
	"github.com/ollama/ollama/version"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = server.Serve()
	case len(os.Args) == 2 && os.Args[1] == "--version":
		fmt.Println("ollama version is", version.Version)
	default:
		err = fmt.Errorf("usage: ollama serve | ollama --version")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}
