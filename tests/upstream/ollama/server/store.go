package server

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ollama/ollama/envconfig"
)

// A model is a manifest, which names the blob that holds its weights. Names are of two parts, as in probe:latest.
var (
	digestPattern = regexp.MustCompile(`^sha256[:-][0-9a-f]{64}$`)
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})?$`)
)

type manifest struct{ Weights string } // a digest

func fullName(name string) (string, error) {
	if !namePattern.MatchString(name) {
		return "", fmt.Errorf("%q is no name for a model", name)
	}
	if !strings.Contains(name, ":") {
		name += ":latest"
	}
	return name, nil
}

func manifestPath(name string) string {
	model, tag, _ := strings.Cut(name, ":")
	return filepath.Join(envconfig.Models(), "manifests", model, tag)
}

func isStored(name string) bool {
	_, err := os.Stat(manifestPath(name))
	return err == nil
}

func blobPath(digest string) (string, error) {
	if !digestPattern.MatchString(digest) {
		return "", fmt.Errorf("%q is no digest", digest)
	}
	return filepath.Join(envconfig.Models(), "blobs", strings.Replace(digest, ":", "-", 1)), nil
}

// writeFile makes a file that is there with all of its content, or not at all where check has an error.
func writeFile(path string, content io.Reader, check func() error) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(folder, ".partial-")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, copying := io.Copy(temporary, content)
	if err := errors.Join(copying, temporary.Close(), check()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

// saveBlob stores content under its digest, and nothing where the content has another.
func saveBlob(digest string, content io.Reader) error {
	path, err := blobPath(digest)
	if err != nil {
		return err
	}
	hash := sha256.New()
	return writeFile(path, io.TeeReader(content, hash), func() error {
		if sum := fmt.Sprintf("%x", hash.Sum(nil)); !strings.HasSuffix(digest, sum) {
			return fmt.Errorf("the content of %s has the digest %s", digest, sum)
		}
		return nil
	})
}

// saveModel stores a file of weights, and the manifest that makes it a model.
func saveModel(name, path string) error {
	weights, err := os.Open(path)
	if err != nil {
		return err
	}
	defer weights.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, weights); err != nil {
		return err
	}
	if _, err := weights.Seek(0, io.SeekStart); err != nil {
		return err
	}
	digest := fmt.Sprintf("sha256:%x", hash.Sum(nil))
	if err := saveBlob(digest, weights); err != nil {
		return err
	}
	written, err := json.Marshal(manifest{digest})
	if err != nil {
		return err
	}
	return writeFile(manifestPath(name), strings.NewReader(string(written)), func() error { return nil })
}

// weightsOf is the path of a model's weights.
func weightsOf(name string) (string, error) {
	written, err := os.ReadFile(manifestPath(name))
	if err != nil {
		return "", err
	}
	var m manifest
	if err := json.Unmarshal(written, &m); err != nil {
		return "", fmt.Errorf("broken manifest of %s: %w", name, err)
	}
	return blobPath(m.Weights)
}

func models() []stored {
	found := []stored{}
	paths, _ := filepath.Glob(manifestPath("*:*"))
	for _, path := range paths {
		name := filepath.Base(filepath.Dir(path)) + ":" + filepath.Base(path)
		weights, err := weightsOf(name)
		if err != nil {
			continue
		}
		if file, err := os.Stat(weights); err == nil {
			_, digest, _ := strings.Cut(filepath.Base(weights), "-")
			found = append(found, stored{Name: name, Size: file.Size(), Since: file.ModTime(), Digest: digest})
		}
	}
	return found
}
