"""Tables as people have them: `files` opens, `formats` knows headers, `chunks` reads by pandas, `cells` are numbers."""
