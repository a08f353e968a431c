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

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/envconfig"
)

var (
	digestPattern = regexp.MustCompile(`^sha256[:-][0-9a-f]{64}$`)
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})?$`)

	errDigest   = errors.New("invalid digest format")
	errName     = errors.New("invalid model name")
	errMismatch = errors.New("digest does not match the content")
)

type modelLayer struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

type manifest struct {
	Layers []modelLayer `json:"layers"`
}

func fullName(name string) (string, error) {
	if !namePattern.MatchString(name) {
		return "", errName
	}
	if !strings.Contains(name, ":") {
		name += ":latest"
	}
	return name, nil
}

func manifestPath(name string) string {
	model, tag, _ := strings.Cut(name, ":")
	return filepath.Join(envconfig.Models(), "manifests", "registry.ollama.ai", "library", model, tag)
}

func blobPath(digest string) (string, error) {
	if !digestPattern.MatchString(digest) {
		return "", errDigest
	}
	return filepath.Join(envconfig.Models(), "blobs", strings.Replace(digest, ":", "-", 1)), nil
}

// writeFile makes a file that is there with all of its content or not at all.
func writeFile(path string, r io.Reader, check func() error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".partial-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = io.Copy(temp, r)
	if closing := temp.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = check()
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// saveBlob stores content under its digest, and nothing where the content has another.
func saveBlob(digest string, r io.Reader) error {
	path, err := blobPath(digest)
	if err != nil {
		return err
	}
	hash := sha256.New()
	return writeFile(path, io.TeeReader(r, hash), func() error {
		if fmt.Sprintf("%x", hash.Sum(nil)) != digest[len(digest)-64:] {
			return errMismatch
		}
		return nil
	})
}

// saveLayer stores a file under the digest of its content.
func saveLayer(path string) (modelLayer, error) {
	file, err := os.Open(path)
	if err != nil {
		return modelLayer{}, err
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, file)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return modelLayer{}, err
	}
	digest := fmt.Sprintf("sha256:%x", hash.Sum(nil))
	return modelLayer{"application/vnd.ollama.image.model", digest, size}, saveBlob(digest, file)
}

func saveManifest(name string, m manifest) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return writeFile(manifestPath(name), strings.NewReader(string(data)), func() error { return nil })
}

// modelFile is the path of a model's weights.
func modelFile(name string) (string, error) {
	data, err := os.ReadFile(manifestPath(name))
	if err != nil {
		return "", err
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil || len(m.Layers) == 0 {
		return "", fmt.Errorf("broken manifest of %s", name)
	}
	return blobPath(m.Layers[0].Digest)
}

func models() []api.ModelInfo {
	found := []api.ModelInfo{}
	paths, _ := filepath.Glob(manifestPath("*:*"))
	for _, path := range paths {
		name := filepath.Base(filepath.Dir(path)) + ":" + filepath.Base(path)
		file, err := modelFile(name)
		if err != nil {
			continue
		}
		if info, err := os.Stat(file); err == nil {
			found = append(found, api.ModelInfo{
				Name: name, Model: name, ModifiedAt: info.ModTime(), Size: info.Size(),
				Digest: strings.TrimPrefix(filepath.Base(file), "sha256-"),
			})
		}
	}
	return found
}
