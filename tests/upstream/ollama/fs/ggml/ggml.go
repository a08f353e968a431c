// Package ggml reads the metadata of a GGUF file.
package ggml

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// GGML is a decoded file.
type GGML struct{ kv KV }

// KV returns the file's metadata.
func (g *GGML) KV() KV { return g.kv }

// KV maps a key to a uint64, float64 or string; arrays are left out.
type KV map[string]any

// Architecture is the model's, such as llama.
func (kv KV) Architecture() string {
	s, _ := kv["general.architecture"].(string)
	return s
}

func (kv KV) uint(key string) uint64 {
	n, _ := kv[kv.Architecture()+"."+key].(uint64)
	return n
}

func (kv KV) BlockCount() uint64      { return kv.uint("block_count") }
func (kv KV) EmbeddingLength() uint64 { return kv.uint("embedding_length") }
func (kv KV) ContextLength() uint64   { return kv.uint("context_length") }
func (kv KV) HeadCountMax() uint64    { return kv.uint("attention.head_count") }

// HeadCountKVMin is the number of KV heads, which is that of all heads where the file has none.
func (kv KV) HeadCountKVMin() uint64 {
	if n := kv.uint("attention.head_count_kv"); n > 0 {
		return n
	}
	return kv.HeadCountMax()
}

// sizes of the types of metadata that have a fixed one; 8 is a string, 9 an array
var sizes = map[uint32]int64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

const maxString = 1 << 20

var errNotGGUF = errors.New("not a GGUF file")

// Decode reads the metadata of a GGUF file of version 2 or 3.
func Decode(r io.Reader) (*GGML, error) {
	d := &decoder{r: bufio.NewReader(r)}
	if magic, version := d.u32(), d.u32(); d.err != nil || magic != 0x46554747 || version < 2 || version > 3 {
		return nil, errNotGGUF
	}
	d.u64() // tensors
	kv := KV{}
	for n := d.u64(); n > 0 && d.err == nil; n-- {
		key := d.text()
		if value := d.value(d.u32()); value != nil {
			kv[key] = value
		}
	}
	if d.err != nil {
		return nil, fmt.Errorf("broken GGUF file: %w", d.err)
	}
	return &GGML{kv: kv}, nil
}

type decoder struct {
	r   *bufio.Reader
	err error
}

func (d *decoder) read(n int64) []byte {
	b := make([]byte, n)
	if d.err == nil {
		_, d.err = io.ReadFull(d.r, b)
	}
	return b
}

func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.read(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.read(8)) }

func (d *decoder) text() string {
	n := d.u64()
	if n > maxString {
		d.err = errors.New("a string is too long")
		return ""
	}
	return string(d.read(int64(n)))
}

func (d *decoder) value(kind uint32) any {
	switch size, fixed := sizes[kind]; {
	case kind == 8:
		return d.text()
	case kind == 9:
		element := d.u32()
		for n := d.u64(); n > 0 && d.err == nil; n-- {
			if element == 9 {
				d.err = errors.New("an array of arrays")
				break
			}
			d.value(element)
		}
	case fixed:
		b := append(d.read(size), make([]byte, 8)...)
		return binary.LittleEndian.Uint64(b) & (1<<(8*size) - 1)
	default:
		d.err = fmt.Errorf("metadata of unknown type %d", kind)
	}
	return nil
}
