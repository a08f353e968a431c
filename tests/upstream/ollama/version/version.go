// Package version holds what the linker was told that this build is called.
package version

// Version is set with -X when the program is linked.
var Version = "unknown"
