// Package deploy checks the Dockerfile, docker-compose.yml and docs/deploy: with
// the libraries that Docker, Compose and Kubernetes themselves read them with,
// with systemd's own checks, and by running as processes what they say, for
// there may be no container engine. It is a module of its own, so that nothing
// else depends on those libraries.
package deploy
