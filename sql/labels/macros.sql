-- How a caption falls into tokens: a word (letters, marks, digits), or a break (other signs).
-- Spaces, hyphens, apostrophes and quotation marks stand between the words of a phrase; a phrase
-- does not reach over a break. `pieces` are the same tokens, each with what stands before it.
-- Lower-casing keeps the number of code points, so both have a token for a token.
create or replace temp macro words(caption) as regexp_extract_all(
    lower(caption), '[\pL\pM\pN]+|[^\pL\pM\pN\s\pZ\-‐‑''’‘`"“”_]+'
);

create or replace temp macro pieces(caption) as regexp_extract_all(
    lower(caption),
    '[\s\pZ\-‐‑''’‘`"“”_]*(?:[\pL\pM\pN]+|[^\pL\pM\pN\s\pZ\-‐‑''’‘`"“”_]+)'
);
