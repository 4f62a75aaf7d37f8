// Package browser tries the pages as people do: in Chromium, driven over its
// DevTools protocol, against the built programs. It needs chromium and, for
// axe-core, npm; .ci/deps installs both.
package browser
