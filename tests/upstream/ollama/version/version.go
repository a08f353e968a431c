// Package version holds what the linker was told that this build is called.
package version

var Version string = "0.0.0"
