"""Result objects to their destinations: a PACS by C-STORE, an origin server by STOW-RS, a folder."""
