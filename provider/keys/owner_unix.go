//go:build unix

package keys

import (
	"io/fs"
	"os"
	"syscall"
)

// owned says whose a file is: this process's user's, or else root's.
func owned(info fs.FileInfo) (ours, roots bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true, false
	}
	return int(stat.Uid) == os.Geteuid(), stat.Uid == 0
}
