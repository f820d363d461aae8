"""The live page of a line: `stlm camera --serve 127.0.0.1:8080`."""
