"""The report's look: one column on a phone, dark where the reader's system is."""

STYLE = """
:root{color-scheme:light dark;--ground:#fbfbf9;--card:#fff;--ink:#1c1f22;--soft:#5a6169;
--edge:#dcdfe2;--track:#e9ebed;--bar:#0072b2;--best:#00795a;--bad:#c2410c;--line:#0072b2}
@media (prefers-color-scheme:dark){:root{--ground:#14171a;--card:#1c2024;--ink:#e9ebed;
--soft:#a4abb3;--edge:#343a41;--track:#2b3137;--bar:#56b4e9;--best:#2fbf98;--bad:#f0884b;
--line:#56b4e9}}
*{box-sizing:border-box}
html{font:16px/1.5 system-ui,sans-serif;background:var(--ground);color:var(--ink);
-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1180px;padding:1.25rem clamp(.9rem,3vw,2rem) 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0}
h2{font-size:1.2rem;margin:2.4rem 0 .8rem}
h3{font-size:1rem;margin:1.6rem 0 .5rem}
p{margin:.4rem 0;max-width:70ch}
.soft,figcaption,caption{color:var(--soft)}
a{color:var(--bar)}
nav{display:flex;flex-wrap:wrap;gap:.25rem .9rem;margin:.8rem 0}
nav a{padding:.2rem 0}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,var(--min)),1fr))}
.card,figure{background:var(--card);border:1px solid var(--edge);border-radius:10px;padding:1rem;
margin:0;min-width:0}
.card>h3:first-child,.card>p:first-child{margin-top:0}
.alone{max-width:36rem}
.tiles{display:grid;gap:.7rem;grid-template-columns:repeat(auto-fit,minmax(8.4rem,1fr));
margin:1.2rem 0;padding:0}
.tiles div{background:var(--card);border:1px solid var(--edge);border-radius:10px;
padding:.7rem .9rem;display:flex;flex-direction:column-reverse;justify-content:flex-end}
.tiles dd{margin:0;font-size:1.3rem;font-weight:650;line-height:1.2;white-space:nowrap;
letter-spacing:-.01em}
.tiles dt{color:var(--soft);font-size:.85rem}
svg{display:block;width:100%;max-width:480px;height:auto;overflow:visible}
svg text{fill:var(--ink);font:13px system-ui,sans-serif}
svg .value{font-weight:600}
svg .tick{fill:var(--soft);font-size:11px}
.track{fill:var(--track)}.bar{fill:var(--bar)}.best{fill:var(--best)}.bad{fill:var(--bad)}
.axis{stroke:var(--edge)}.line{fill:none;stroke:var(--line);stroke-width:1.8;
stroke-linejoin:round}circle{fill:var(--line)}
.frame{fill:none;stroke:var(--edge)}.diagonal{stroke:var(--soft);stroke-dasharray:4 4}
.dot{fill:var(--bar);fill-opacity:.65}
figure{padding:0;overflow:hidden}
figure img{display:block;width:100%;height:auto}
figcaption{padding:.6rem .8rem;font-size:.85rem;overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:min(100%,36rem)}
caption{text-align:left;font-size:.85rem;padding:.2rem 0 .4rem}
th,td{padding:.35rem .55rem;border-bottom:1px solid var(--edge);text-align:right;
font-weight:400;vertical-align:top}
thead th{color:var(--soft);font-size:.85rem}
th:first-child{text-align:left;overflow-wrap:break-word;min-width:7rem}
.words td{text-align:left;overflow-wrap:anywhere}.words thead th{text-align:left}
th:first-child,td:first-child{padding-left:0}
pre{background:var(--card);border:1px solid var(--edge);border-radius:10px;padding:.9rem;
white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem}
details{margin:.8rem 0}summary{cursor:pointer;padding:.3rem 0}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 .8em}
.note{border-left:3px solid var(--bad);padding:.1rem 0 .1rem .8rem}
@media print{.card,figure{break-inside:avoid}}
"""
