# What ./bin/dev needs: nix-shell, then ./bin/dev as anywhere.
#
# The packages it installs are made for any Linux, and some are programs (PostgreSQL, Valkey, ruff, buf): they look for
# their loader and for libraries where NixOS has none. On Linux this is therefore an environment with the usual folders.
{ pkgs ? import <nixpkgs> { } }:

let
  tools = pkgs: [
    pkgs.python3
    pkgs.git
    pkgs.cacert
  ];
  libraries = pkgs: [
    pkgs.stdenv.cc.cc.lib # libstdc++
    pkgs.zlib
    pkgs.util-linux # setpriv, for root
  ];
in
if pkgs.stdenv.isLinux then
  (pkgs.buildFHSEnv {
    name = "chatback";
    targetPkgs = pkgs: tools pkgs ++ libraries pkgs;
  }).env
else
  pkgs.mkShell { packages = tools pkgs; }
