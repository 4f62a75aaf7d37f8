// Package storagetest proves that an engine keeps the contract of package
// storage: Run is the same suite for each, races included. It also gives tests
// a real PostgreSQL that they start themselves, and never touches another.
package storagetest
