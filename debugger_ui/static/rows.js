// A long list of which only what can be seen is in the document.

export class Rows {
  // `draw(element, index)` fills a row; rows are reused, and one that stays in sight stays the same element: moving by
  // one row draws one. `inner` is put into `scroller`.
  constructor(scroller, { height, top = 0, make, draw }) {
    this.scroller = scroller;
    this.height = height;
    this.top = top;
    this.make = make;
    this.draw = draw;
    this.count = 0;
    this.inner = document.createElement("div");
    this.inner.className = "rows";
    scroller.append(this.inner);
    this.pool = [];
    this.first = -1;
    scroller.addEventListener("scroll", () => this.refresh(), { passive: true });
    this.room = scroller.clientHeight;  // asked for once: amid changes the answer costs a layout
    new ResizeObserver(() => { this.room = scroller.clientHeight; this.refresh(); }).observe(scroller);
  }

  resize(count) {
    this.count = count;
    this.inner.style.height = `${this.top + count * this.height}px`;
    this.refresh();
  }

  get visible() { return Math.ceil(this.room / this.height) + 2; }

  refresh(from = this.scroller.scrollTop) {
    const first = Math.max(0, Math.floor((from - this.top) / this.height));
    const wanted = Math.min(this.visible, this.count);
    while (this.pool.length < wanted) {
      const row = this.make();
      row.classList.add("row");
      this.inner.append(row);
      this.pool.push(row);
    }
    const size = this.pool.length;
    this.pool.forEach((row, i) => {
      const index = first + (((i - first) % size) + size) % size;
      const isUsed = index < first + wanted && index < this.count;
      if (row.hidden === isUsed) row.hidden = !isUsed;
      if (!isUsed) return;
      if (row.index !== index) {
        row.index = index;
        row.style.transform = `translateY(${this.top + index * this.height}px)`;
        row.dataset.index = index;
      }
      this.draw(row, index);
    });
  }

  // Bring a row into sight, moving as little as possible.
  reveal(index) {
    if (index < 0 || index >= this.count) return;
    const { scroller, height, room } = this;
    const above = this.top + index * height, margin = Math.min(3 * height, room / 4);
    if (above - margin < scroller.scrollTop) scroller.scrollTop = above - margin;
    else if (above + height + margin > scroller.scrollTop + room) scroller.scrollTop = above + height + margin - room;
  }
}
