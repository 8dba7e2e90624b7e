package main

import "golang.org/x/sys/unix"

// echoOff stops a terminal from showing what is typed, and returns what undoes that. It comes before the question: who types
// at once is not seen either.
func echoOff(fd int) (restore func()) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	off := *t
	off.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &off); err != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, t) }
}
