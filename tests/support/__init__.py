"""Code that tests share: processes, servers, clients and a parser."""
