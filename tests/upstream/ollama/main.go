package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/ollama/ollama/server"
	"github.com/ollama/ollama/version"
)

func run(words []string) error {
	if slices.Equal(words, []string{"serve"}) {
		return server.Serve()
	}
	if slices.Equal(words, []string{"--version"}) {
		_, err := fmt.Println(version.Version)
		return err
	}
	return errors.New("usage: ollama serve | ollama --version")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ollama:", err)
		os.Exit(1)
	}
}
