// Package gguf reads the metadata of a GGUF file.
package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Metadata maps a key to a string or, for every kind of number, a uint64 of its bits; arrays are left out.
type Metadata map[string]any

// Number is what the metadata has under the key that belongs to the model's architecture; 0 where it has nothing.
func (m Metadata) Number(key string) uint64 {
	architecture, _ := m["general.architecture"].(string)
	n, _ := m[architecture+"."+key].(uint64)
	return n
}

// sizes of the types of metadata that have a fixed one; 8 is a string, 9 an array
var sizes = map[uint32]int64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

const maxString = 1 << 20

var errNotGGUF = errors.New("not a GGUF file")

// Read reads the metadata of a GGUF file of version 2 or 3.
func Read(r io.Reader) (Metadata, error) {
	d := &decoder{r: bufio.NewReader(r)}
	if magic, version := d.u32(), d.u32(); d.err != nil || magic != 0x46554747 || version < 2 || version > 3 {
		return nil, errNotGGUF
	}
	d.u64() // tensors
	m := Metadata{}
	for n := d.u64(); n > 0 && d.err == nil; n-- {
		key := d.text()
		if value := d.value(d.u32()); value != nil {
			m[key] = value
		}
	}
	if d.err != nil {
		return nil, fmt.Errorf("broken GGUF file: %w", d.err)
	}
	return m, nil
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
