// Package people has people at their browsers and the apps they use, as a
// running issuer meets them. Nothing in here fails a test: what goes wrong is
// returned, and what a browser showed before is then still there.
//
// Requests go to the issuer's address by way of Via, which may take them to
// any server that stands for it.
package people
