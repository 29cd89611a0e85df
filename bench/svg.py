"""As much SVG as two plots need: no library, and a file that can be committed and read in a diff."""
from xml.sax.saxutils import escape

INK, PALE, GRID = "#333", "#888", "#ddd"
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#4a5568")


class Svg:
    def __init__(self, width, height, title):
        self.size = width, height
        self.parts = [f'<rect width="{width}" height="{height}" fill="#fff"/>']
        self.text(width / 2, 22, title, size=15, anchor="middle", weight="bold")

    def line(self, x1, y1, x2, y2, colour=INK, width=1, dash=None):
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{dashes}/>')

    def rect(self, x, y, w, h, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0):.1f}" height="{h:.1f}" fill="{colour}"/>')

    def circle(self, x, y, r, colour):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{colour}"/>')

    def text(self, x, y, s, size=12, anchor="start", colour=INK, weight="normal", turn=None):
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn is not None else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
                          f'font-weight="{weight}"{turned}>{escape(s)}</text>')

    def save(self, path):
        w, h = self.size
        with open(path, "w") as f:
            f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" font-family="sans-serif">\n')
            f.write("\n".join(self.parts) + "\n</svg>\n")
